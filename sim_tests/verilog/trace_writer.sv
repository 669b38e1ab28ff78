// Writes one line for each instruction that ends, to the file named by +trace_file=<name>:
// unit, program counter, four loop indices, issue cycle, end cycle, checksum; all decimal.
module trace_writer #(
    parameter integer UNITS = 5,
    parameter integer PC_BITS = 13,
    parameter integer INDEX_BITS = 20,
    parameter integer CYCLE_BITS = 48
) (
    input wire                        clk,
    input wire [UNITS-1:0]            valid,
    input wire [UNITS*PC_BITS-1:0]    pc,
    input wire [UNITS*INDEX_BITS-1:0] index0,
    input wire [UNITS*INDEX_BITS-1:0] index1,
    input wire [UNITS*INDEX_BITS-1:0] index2,
    input wire [UNITS*INDEX_BITS-1:0] index3,
    input wire [UNITS*CYCLE_BITS-1:0] issue,
    input wire [UNITS*CYCLE_BITS-1:0] \end ,
    input wire [UNITS*32-1:0]         checksum
);
    string name;
    integer file = 0;
    integer unit;

    initial if ($value$plusargs("trace_file=%s", name) != 0) file = $fopen(name, "w");

    always @(posedge clk)
        if (|valid && file != 0)
            for (unit = 0; unit < UNITS; unit = unit + 1)
                if (valid[unit])
                    $fwrite(file, "%0d %0d %0d %0d %0d %0d %0d %0d %0d\n", unit,
                            pc[unit*PC_BITS+:PC_BITS],
                            index0[unit*INDEX_BITS+:INDEX_BITS], index1[unit*INDEX_BITS+:INDEX_BITS],
                            index2[unit*INDEX_BITS+:INDEX_BITS], index3[unit*INDEX_BITS+:INDEX_BITS],
                            issue[unit*CYCLE_BITS+:CYCLE_BITS], \end [unit*CYCLE_BITS+:CYCLE_BITS],
                            checksum[unit*32+:32]);

    final if (file != 0) $fclose(file);
endmodule
