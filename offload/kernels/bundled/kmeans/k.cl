// One step of Lloyd's algorithm over n points of d numbers and k centroids.
// Sums are made in the order of the points and without fused multiplication,
// so that they are what the other variants get.
#pragma OPENCL FP_CONTRACT OFF

// assign finds the nearest centroid of each point; of equal ones the first.
__kernel void assign(__global const float *centroids, __global const float *points, __global uint *labels, uint k, uint n, uint d) {
	size_t p = get_global_id(0);
	if (p >= n)
		return;
	uint best = 0;
	float least = INFINITY;
	for (uint c = 0; c < k; c++) {
		float distance = 0;
		for (uint j = 0; j < d; j++) {
			float difference = points[p * d + j] - centroids[(size_t)c * d + j];
			float square = difference * difference;
			distance = distance + square;
		}
		if (distance < least) {
			least = distance;
			best = c;
		}
	}
	labels[p] = best;
}

// update makes one number of one centroid: the mean of its points, or what it
// was if it has none.
__kernel void update(__global const float *centroids, __global const float *points, __global const uint *labels, __global float *moved, uint k, uint n, uint d) {
	size_t i = get_global_id(0);
	if (i >= (size_t)k * d)
		return;
	uint c = i / d, j = i % d;
	float sum = 0;
	uint count = 0;
	for (size_t p = 0; p < n; p++) {
		if (labels[p] == c) {
			sum = sum + points[p * d + j];
			count++;
		}
	}
	moved[i] = count == 0 ? centroids[i] : sum / (float)count;
}
