module busway-memory

go 1.19

require busway v0.0.0

replace busway => ../../go
