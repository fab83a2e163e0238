// Passes what is not below t, and makes the rest, and what is no number, 0.
__kernel void threshold_filter(__global const float *in, __global float *out, uint n, float t) {
	size_t i = get_global_id(0);
	if (i < n)
		out[i] = in[i] >= t ? in[i] : 0.0f;
}
