// c (m x n) = a (m x k) * b (k x n), row by row. A group makes a square of
// SIDE x SIDE results, and fetches what it needs of a and b a square at a time.
// Each result is summed up in the order of k, without fused multiplication, so
// that it is what the other variants get.
#pragma OPENCL FP_CONTRACT OFF
#define SIDE 16
__kernel void matmul(__global const float *a, __global const float *b, __global float *c, uint m, uint k, uint n) {
	__local float as[SIDE][SIDE], bs[SIDE][SIDE];
	uint x = get_local_id(0), y = get_local_id(1);
	size_t col = get_global_id(0), row = get_global_id(1);
	float sum = 0;
	for (uint from = 0; from < k; from += SIDE) {
		as[y][x] = row < m && from + x < k ? a[row * k + from + x] : 0;
		bs[y][x] = col < n && from + y < k ? b[(size_t)(from + y) * n + col] : 0;
		barrier(CLK_LOCAL_MEM_FENCE);
		uint end = min((uint)SIDE, k - from);
		for (uint i = 0; i < end; i++) {
			float product = as[y][i] * bs[i][x];
			sum = sum + product;
		}
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	if (row < m && col < n)
		c[row * n + col] = sum;
}
