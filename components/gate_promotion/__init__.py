"""Answers one question for the pipeline's condition: do both verdicts speak for this very version?"""
