"""The parts of reward=judge: the rubric and its verdict, the endpoint, the replies kept on disk, what is said of them."""
