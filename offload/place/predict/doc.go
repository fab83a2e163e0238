// Package predict says how long a kernel will run for so many bytes on a class
// of devices, from the tasks of that kernel that have finished there. It is
// pure: age is counted in finished tasks, not in time.
//
// # Method
//
// For each pair of kernel and class the last 64 finished tasks are kept, each
// with a weight that halves every 16 tasks. The run time is taken to be
//
//	fixed + bytes · per byte
//
// fitted by the Theil–Sen estimator with weights: per byte is the weighted
// median of the slopes of all pairs of tasks, fixed the weighted median of what
// is left. (H. Theil, "A rank-invariant method of linear and polynomial
// regression analysis", 1950; P. Sen, JASA 63, 1968; weights as in L. Jaeckel,
// Annals of Mathematical Statistics 43, 1972.) What scatters is taken to be in
// proportion to the run time: a slope weighs as much as its tasks lie apart
// compared with their times, a rest as one over its task's time. Half of the tasks may be
// stragglers without bending the line, and it estimates the median itself, which
// is what placing wants. The 95th percentile, for time-outs and speculation, is
// the median times the weighted 95th percentile of measured over fitted time.
//
// As long as the tasks are fewer than four, or all of one size, a line cannot be
// fitted: then what was believed before is scaled by the weighted median of
// measured over believed time.
//
// Before any task has finished, belief comes from the first of these that there
// is: the hint of the kernel's manifest; the bandwidth that was measured of the
// device; a guess, which asks for a probe task.
package predict
