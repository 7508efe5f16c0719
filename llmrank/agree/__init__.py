"""Label agreement, system-ranking agreement, significance and debiased estimates: arrays in, results out."""
