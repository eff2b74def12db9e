"""How strong the suites are: whether they notice implementations that are wrong on purpose."""
