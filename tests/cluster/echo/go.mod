module echo

go 1.24.0
