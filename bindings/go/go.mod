module busway

go 1.19
