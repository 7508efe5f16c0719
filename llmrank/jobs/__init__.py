"""What jobs share that ask about a stream of things and write files: a reranking job, a judging job."""
