"""Programs that write code: a new resource, a new service. They need Python and git, and nothing else."""
