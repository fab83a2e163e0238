/* What quern calls in the model of an RTL kernel, k.so. Version 1.
 *
 * A model has one AXI4-Stream in and one out. It is opened, its parameters are
 * set, a stream is passed through it by one or more steps, and it is closed: a
 * model serves one stream. Functions are called from one thread at a time. */
#ifndef QUERN_RTL_H
#define QUERN_RTL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUERN_RTL_VERSION 1

/* How a step ended. */
enum {
	QUERN_RTL_GOES_ON = 0,  /* the input is used up, the output is full, or the cycles are over */
	QUERN_RTL_DONE = 1,     /* the last beat has left the kernel */
	QUERN_RTL_UNSTEADY = 2, /* TVALID fell, or the beat changed, while TREADY was low */
	QUERN_RTL_FINISHED = 3, /* the model called $finish or $stop */
	QUERN_RTL_REFUSED = 4   /* a step with nonsense, or after the last */
};

/* One step. The fields below the line are set by the model. */
struct quern_rtl_step {
	const uint8_t *in; /* what may be fed */
	uint64_t in_len;   /* bytes; a whole number of beats unless last */
	uint8_t *out;
	uint64_t out_len;  /* bytes that fit; a beat at least */
	uint64_t cycles;   /* at most so many */
	uint32_t last;     /* the stream ends with in, which may be empty */
	uint32_t stall;    /* of 256 cycles, about so many in which TVALID, and so many in which TREADY, is held low */
	uint64_t seed;     /* of these; read by the first step */
	/* ---- */
	uint64_t in_used;  /* bytes */
	uint64_t out_used; /* bytes */
	uint64_t ran;      /* cycles of aclk */
};

uint32_t quern_rtl_version(void);
uint32_t quern_rtl_width(void);  /* bytes of TDATA */
uint32_t quern_rtl_params(void); /* how many there are */
/* The name of a parameter, without param_; NULL past the last. */
const char *quern_rtl_param(uint32_t i);

void *quern_rtl_open(void); /* after a reset; NULL: out of memory */
int quern_rtl_set(void *model, uint32_t param, uint32_t value); /* 0: done */
int quern_rtl_step(void *model, struct quern_rtl_step *step);
void quern_rtl_close(void *model);

#ifdef __cplusplus
}
#endif
#endif
