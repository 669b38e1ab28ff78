"""The 16-chip machine whose weights are wires (HNLPU, ASPLOS'26, arXiv 2508.16151 v2): time, not values.

Four by four chips, each with a direct link to its three peers in the row and its three in the column. All
of a layer's weights are wires on all chips; a token passes layer after layer through the same machine, and
many tokens are on their way at once.
"""
