// Package assign solves the matrices behind placement: which row (a task) goes
// to which column (a slot, or a device of several), given what each pair costs.
// It is pure and deterministic: no clock, no randomness, ties go to the lower
// number.
//
//	Capacitated   min Σ cost, each column takes so many rows       exact
//	Completion    min Σ completion, rows queue at columns          exact
//	Sufferage     rows queue at columns, earliest completion       heuristic
//	Improve       moves and swaps, for the sum or the last finish  heuristic
//	Makespan      the best of several starts, improved, shaken     heuristic
//	LowerBound    no schedule finishes sooner than this            exact bound
//
// Costs are not negative, in any unit; +Inf says that a pair is impossible.
//
// # Sources
//
// Capacitated is the shortest augmenting path method of R. Jonker and A.
// Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", Computing 38 (1987), with columns that hold several
// rows. Completion is the reduction of W. Horn, "Minimizing average flow time
// with parallel machines", Operations Research 21 (1973), and of J. Bruno, E.
// Coffman and R. Sethi, CACM 17 (1974): the row that is k-th from the last at a
// column delays k rows. Sufferage is from M. Maheswaran et al., "Dynamic mapping
// of a class of independent tasks onto heterogeneous computing systems", JPDC 59
// (1999). LowerBound is the Lagrangian dual of the linear relaxation of
// R||Cmax (J. Lenstra, D. Shmoys and É. Tardos, Mathematical Programming 46,
// 1990); with few rows a column it lies far below every schedule, so the tests prove
// what Makespan reaches with a stronger one (certify_test.go).
//
// # What holds
//
// Capacitated and Completion are exact; the tests compare with all assignments. Of
// Makespan the tests show, on 1,000 random instances of six families (unrelated,
// related and identical columns, heavy tails, classes of devices, data with a home)
// of 2 to 8 columns with 2 to 20 rows each, that the last finish is within 10 % of a
// lower bound.
package assign
