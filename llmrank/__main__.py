"""`python -m llmrank` is `llmrank`."""

from llmrank.cli.main import main

main()
