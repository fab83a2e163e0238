// Package rtl makes the model of an RTL kernel: the Verilog of a kernel becomes,
// by Verilator and a C++ compiler, a shared object that package rtlworker runs
// cycle by cycle, as if it were a device.
//
// A kernel is a module with these ports, WIDTH being the bytes of a beat:
//
//	aclk, aresetn                    clock; reset, low for 8 cycles at first, synchronous
//	s_axis_tdata[8*WIDTH-1:0]        the input: AXI4-Stream, the first byte lowest
//	s_axis_tkeep[WIDTH-1:0]          all ones, but in the last beat, of which the lowest count
//	s_axis_tlast, s_axis_tvalid, s_axis_tready
//	m_axis_…                         the output, the same; bytes without TKEEP are dropped
//	param_NAME[31:0]                 a parameter, steady from before the first beat
//
// A stream of no bytes is one beat without any TKEEP, and with TLAST. The kernel
// ends its output with TLAST. Verilog may be of any kind that Verilator takes.
//
// harness/quern_rtl.h is the interface of the shared object, which is all that
// runs: a model may be made by other tools, too. It is native code with the
// rights of the agent, so hosts run it only signed (package sign).
package rtl
