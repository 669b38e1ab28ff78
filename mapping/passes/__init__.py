"""Compiler passes: functions from graph to graph, a file each; `pipeline.PIPELINE` lists them in order."""
