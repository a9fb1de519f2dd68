"""Second derivatives: solvers that know a matrix-vector product, not a model."""
