// Content of one simulated memory channel: two asynchronous reads, one write with byte strobes, one host write.
//
// +memory_load_<CHANNEL>=file fills it at time 0 ($readmemh: WIDTH bits in hexadecimal a line);
// +memory_dump_<CHANNEL>=file writes it when the simulation ends. Words that no file sets are zero.
module memory_array #(
    parameter integer CHANNEL = 0,
    parameter integer DEPTH = 1024,
    parameter integer WIDTH = 64,
    parameter integer ADDRESS_BITS = 10
) (
    input  wire                    clk,
    input  wire [ADDRESS_BITS-1:0] read_address,
    output wire [WIDTH-1:0]        read_data,
    input  wire [WIDTH/8-1:0]      write_enable,
    input  wire [ADDRESS_BITS-1:0] write_address,
    input  wire [WIDTH-1:0]        write_data,
    input  wire                    host_enable,
    input  wire [ADDRESS_BITS-1:0] host_address,
    input  wire [WIDTH-1:0]        host_write_data,
    output wire [WIDTH-1:0]        host_read_data
);
    reg [WIDTH-1:0] words [0:DEPTH-1];
    reg [8*1024-1:0] load_file;
    reg [8*1024-1:0] dump_file;
    reg [8*64-1:0] option;
    integer i;

    initial begin
        for (i = 0; i < DEPTH; i = i + 1) words[i] = {WIDTH{1'b0}};
        $sformat(option, "memory_load_%0d=%%s", CHANNEL);
        if ($value$plusargs(option, load_file) != 0) $readmemh(load_file, words);
    end

    final begin
        $sformat(option, "memory_dump_%0d=%%s", CHANNEL);
        if ($value$plusargs(option, dump_file) != 0) $writememh(dump_file, words);
    end

    assign read_data = words[read_address];
    assign host_read_data = words[host_address];

    integer b;
    always @(posedge clk) begin
        if (|write_enable) begin
            for (b = 0; b < WIDTH / 8; b = b + 1) begin
                if (write_enable[b]) words[write_address][8*b+:8] <= write_data[8*b+:8];
            end
        end
        if (host_enable) words[host_address] <= host_write_data;
    end
endmodule
