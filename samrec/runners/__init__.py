"""Where the runs of a sweep are carried out: here, apart or as one batched model, or on a cluster."""
