"""The parts of study.py: arms, runs, statistics and the report."""
