// Passes float32 numbers that are not below param_threshold, and makes the
// rest, and what is no number, 0: on an AXI4-Stream of WORDS numbers a beat,
// one beat a cycle, whatever the other side does.
//
// Numbers are compared without a floating-point unit: with the bits of negative
// ones inverted, and the sign bit of the others set, the order of the bit
// patterns is that of the numbers.
module threshold #(
	parameter WORDS = 2
) (
	input wire aclk,
	input wire aresetn,

	input wire [31:0] param_threshold, // steady while a stream passes

	input  wire [32*WORDS-1:0] s_axis_tdata,
	input  wire [4*WORDS-1:0]  s_axis_tkeep,
	input  wire                s_axis_tlast,
	input  wire                s_axis_tvalid,
	output wire                s_axis_tready,

	output wire [32*WORDS-1:0] m_axis_tdata,
	output wire [4*WORDS-1:0]  m_axis_tkeep,
	output wire                m_axis_tlast,
	output reg                 m_axis_tvalid,
	input  wire                m_axis_tready
);
	function [31:0] order(input [31:0] f);
		order = f[30:0] == 0 ? 32'h80000000 : f[31] ? ~f : {1'b1, f[30:0]};
	endfunction

	function nan(input [31:0] f);
		nan = (&f[30:23]) && (|f[22:0]);
	endfunction

	localparam BITS = 32*WORDS + 4*WORDS + 1;

	wire [32*WORDS-1:0] passed;
	genvar i;
	generate
		for (i = 0; i < WORDS; i = i + 1) begin : lane
			wire [31:0] word = s_axis_tdata[32*i +: 32];
			wire pass = !nan(word) && !nan(param_threshold) && order(word) >= order(param_threshold);
			assign passed[32*i +: 32] = pass ? word : 32'd0;
		end
	endgenerate

	// A skid buffer: TREADY comes from a register, so a beat that arrives in the
	// cycle in which the other side stops is put aside.
	wire [BITS-1:0] beat = {s_axis_tlast, s_axis_tkeep, passed};
	reg  [BITS-1:0] out, aside;
	reg             full; // aside holds a beat

	assign s_axis_tready = !full;
	assign {m_axis_tlast, m_axis_tkeep, m_axis_tdata} = out;

	always @(posedge aclk) begin
		if (!aresetn) begin
			m_axis_tvalid <= 1'b0;
			full <= 1'b0;
		end else if (m_axis_tready || !m_axis_tvalid) begin
			m_axis_tvalid <= full || s_axis_tvalid;
			out <= full ? aside : beat;
			full <= 1'b0;
		end else if (s_axis_tvalid && !full) begin
			aside <= beat;
			full <= 1'b1;
		end
	end
endmodule
