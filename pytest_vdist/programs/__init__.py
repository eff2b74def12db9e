"""Multi-rank programs: random ones are run on ranks, judged by an oracle, explained and replayed."""
