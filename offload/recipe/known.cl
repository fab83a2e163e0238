// Computes with integers and floats, in local memory and with a barrier, what
// every device must get right: a fixed mix of the number of each work item, and
// the sum over each group of 64.
#pragma OPENCL FP_CONTRACT OFF
__kernel void known(__global uint *mixed, __global float *sums) {
	__local float part[64];
	uint i = get_global_id(0), l = get_local_id(0);
	uint x = i * 2654435761u;
	x ^= x >> 15;
	x *= 2246822519u;
	x ^= x >> 13;
	mixed[i] = x;
	part[l] = (float)(i & 1023u) * 0.5f;
	barrier(CLK_LOCAL_MEM_FENCE);
	for (uint half_ = 32; half_ > 0; half_ >>= 1) {
		if (l < half_)
			part[l] += part[l + half_];
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	if (l == 0)
		sums[i / 64] = part[0];
}
