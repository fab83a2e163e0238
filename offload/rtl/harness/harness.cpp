// Drives the model that Verilator made of a kernel with one AXI4-Stream in and
// one out; quern_rtl.h says what it offers. kernel_config.h, which is made for
// each kernel, says how wide it is and which parameters it has.
#include "quern_rtl.h"

#include <cstring>
#include <memory>
#include <new>

#include "Vkernel.h"
#include "kernel_config.h"
#include "verilated.h"

namespace {

constexpr uint64_t width = KERNEL_WIDTH;
constexpr int reset_cycles = 8;

const char *const names[] = {
#define PARAM(name) #name,
	KERNEL_PARAMS
#undef PARAM
	nullptr};

struct Beat {
	uint8_t data[width];
	uint64_t keep;
	bool last;

	bool operator==(const Beat &o) const { return keep == o.keep && last == o.last && !memcmp(data, o.data, width); }
};

struct Model {
	VerilatedContext context;
	Vkernel top{&context};
	uint64_t random = 1;
	bool seeded = false, fed_last = false, done = false;
	bool offered = false; // TVALID of the input is high, and stays so until TREADY
	bool held = false;    // TVALID of the output was high, and TREADY low
	Beat before;          // what it held then

	// xorshift64 (Marsaglia, 2003).
	bool stall(uint32_t of256) {
		if (of256 == 0)
			return false;
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		return (random >> 32) % 256 < of256;
	}

	void offer(const uint8_t *data, uint64_t n, bool last) {
		static_assert(sizeof(top.s_axis_tdata) >= width && sizeof(top.m_axis_tdata) >= width, "width: in kernel.yaml is more than TDATA has");
		memset(&top.s_axis_tdata, 0, sizeof top.s_axis_tdata);
		memcpy(&top.s_axis_tdata, data, n);
		top.s_axis_tkeep = n == 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1;
		top.s_axis_tlast = last;
		top.s_axis_tvalid = 1;
	}

	Beat output() {
		Beat b;
		memcpy(b.data, &top.m_axis_tdata, width);
		b.keep = top.m_axis_tkeep;
		b.last = top.m_axis_tlast;
		return b;
	}

	// The rising edge, and the time until the next one.
	void edge() {
		top.aclk = 1;
		top.eval();
		context.timeInc(1);
		top.aclk = 0;
		top.eval();
		context.timeInc(1);
	}
};

} // namespace

extern "C" {

#define API __attribute__((visibility("default")))

API uint32_t quern_rtl_version(void) { return QUERN_RTL_VERSION; }
API uint32_t quern_rtl_width(void) { return width; }
API uint32_t quern_rtl_params(void) { return sizeof names / sizeof *names - 1; }
API const char *quern_rtl_param(uint32_t i) { return i < quern_rtl_params() ? names[i] : nullptr; }

API void *quern_rtl_open(void) {
	Model *m = new (std::nothrow) Model;
	if (m == nullptr)
		return nullptr;
	m->top.aresetn = 0;
	m->top.s_axis_tvalid = 0;
	m->top.m_axis_tready = 0;
	m->top.aclk = 0;
	m->top.eval();
	for (int i = 0; i < reset_cycles; i++)
		m->edge();
	m->top.aresetn = 1;
	return m;
}

API int quern_rtl_set(void *model, uint32_t param, uint32_t value) {
	Model *m = static_cast<Model *>(model);
	uint32_t i = 0;
#define PARAM(name) \
	if (param == i++) { \
		m->top.param_##name = value; \
		return 0; \
	}
	KERNEL_PARAMS
#undef PARAM
	(void)m;
	(void)value;
	return 1;
}

API int quern_rtl_step(void *model, struct quern_rtl_step *s) {
	Model *m = static_cast<Model *>(model);
	Vkernel &top = m->top;
	s->in_used = s->out_used = s->ran = 0;
	if (m->done || s->out_len < width || (!s->last && s->in_len % width != 0) || (m->fed_last && s->in_len > 0))
		return QUERN_RTL_REFUSED;
	if (!m->seeded) {
		m->seeded = true;
		m->random = s->seed | 1;
	}
	uint64_t offering = 0; // bytes of the beat on offer
	while (s->ran < s->cycles) {
		// Whoever has to decide something waits for the caller: the input is used
		// up, or the output does not fit any more.
		const bool more = s->in_used < s->in_len || (s->last && !m->fed_last);
		if (!more && !s->last)
			return QUERN_RTL_GOES_ON;
		if (s->out_len - s->out_used < width)
			return QUERN_RTL_GOES_ON;
		if (more && (m->offered || !m->stall(s->stall))) {
			const uint64_t left = s->in_len - s->in_used;
			offering = left < width ? left : width;
			m->offer(s->in + s->in_used, offering, s->last && offering == left);
			m->offered = true;
		} else if (!m->offered) {
			top.s_axis_tvalid = 0;
		}
		top.m_axis_tready = !m->stall(s->stall);
		top.eval();

		const bool takes = top.s_axis_tvalid && top.s_axis_tready;
		const bool gives = top.m_axis_tvalid && top.m_axis_tready;
		if (m->held && (!top.m_axis_tvalid || !(m->output() == m->before)))
			return QUERN_RTL_UNSTEADY;
		m->held = top.m_axis_tvalid && !top.m_axis_tready;
		if (m->held)
			m->before = m->output();
		Beat b{};
		if (gives)
			b = m->output();
		if (takes) {
			m->fed_last = top.s_axis_tlast;
			m->offered = false;
			s->in_used += offering;
		}
		m->edge();
		s->ran++;
		if (gives) {
			for (uint64_t i = 0; i < width; i++)
				if (b.keep >> i & 1)
					s->out[s->out_used++] = b.data[i];
			if (b.last) {
				m->done = true;
				return QUERN_RTL_DONE;
			}
		}
		if (m->context.gotFinish())
			return QUERN_RTL_FINISHED;
	}
	return QUERN_RTL_GOES_ON;
}

API void quern_rtl_close(void *model) {
	Model *m = static_cast<Model *>(model);
	m->top.final();
	delete m;
}

} // extern "C"
