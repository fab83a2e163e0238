//go:build wasip1

package main

import (
	"bufio"

	"quernfs/offload/kernels/table"
	"quernfs/offload/kernels/task"
)

// csv filters or aggregates files of comma-separated values.
func csv(out *bufio.Writer, phase string) error {
	q, err := table.Parse(table.Params{
		Where: param("WHERE"), Select: param("SELECT"), Aggregate: param("AGGREGATE"), By: param("BY"),
		Delimiter: param("DELIMITER"), Columns: param("COLUMNS"), Header: param("HEADER"), Invalid: param("INVALID"), Encoding: param("ENCODING"), Ranges: param("RANGES"),
	})
	if err != nil {
		return err
	}
	p := table.Single
	switch phase {
	case "map", "combine":
		p = table.Map
	case "reduce":
		p = table.Reduce
	}
	r := q.Start(p, out)
	if err := task.EachFile(r.File); err != nil {
		return err
	}
	return r.End()
}
