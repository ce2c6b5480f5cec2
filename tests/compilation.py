"""How much optimising XLA gives a function that a test compiles: most tests would spend their time on that."""

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}  # called once or a few times
# Without any, convolutions in float64 are ten times slower, which a hundred updates feel.
STEADY = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
