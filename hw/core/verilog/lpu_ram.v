// One on-chip memory: one writing port with an enable bit for every GRANULARITY bits, one reading port
// whose data is the row that was addressed in the cycle before (its old content if it was written then).
module lpu_ram #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter ADDRESS = 1,
    parameter GRANULARITY = 8
) (
    input clk,
    input [WIDTH/GRANULARITY-1:0] write_enable,
    input [ADDRESS-1:0] write_address,
    input [WIDTH-1:0] write_data,
    input [ADDRESS-1:0] read_address,
    output reg [WIDTH-1:0] read_data
);
    reg [WIDTH-1:0] memory[0:DEPTH-1];
    integer row;
    integer part;

`ifndef SYNTHESIS
    // For simulation; tools would spend long on a value for every row, and memories start from zero anyway.
    initial begin
        for (row = 0; row < DEPTH; row = row + 1) memory[row] = {WIDTH{1'b0}};
        read_data = {WIDTH{1'b0}};
    end
`endif

    always @(posedge clk) begin
        for (part = 0; part < WIDTH / GRANULARITY; part = part + 1)
            if (write_enable[part])
                memory[write_address][part*GRANULARITY+:GRANULARITY]
                    <= write_data[part*GRANULARITY+:GRANULARITY];
        read_data <= memory[read_address];
    end
endmodule
