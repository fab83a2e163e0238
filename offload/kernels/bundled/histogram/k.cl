// Counts the values of n bytes. Each group counts in memory of its own first,
// so that the counters of all groups are touched 256 times a group, not once a
// byte. Groups have 256 work items.
__kernel void histogram(__global const uchar *in, uint n, __global uint *counts) {
	__local uint mine[256];
	uint l = get_local_id(0);
	mine[l] = 0;
	barrier(CLK_LOCAL_MEM_FENCE);
	for (size_t i = get_global_id(0); i < n; i += get_global_size(0))
		atomic_inc(&mine[in[i]]);
	barrier(CLK_LOCAL_MEM_FENCE);
	if (mine[l] != 0)
		atomic_add(&counts[l], mine[l]);
}
