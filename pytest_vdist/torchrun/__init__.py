"""pytest starts torchrun: the fixture `torchrun_run`, its deadline, its failures, and what it cleans up."""
