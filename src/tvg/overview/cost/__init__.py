"""What a plan asks of a machine: seconds, bytes, parameters, each with the source of the estimate."""
