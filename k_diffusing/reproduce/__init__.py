"""What another program's picture or workflow says of how it was made, and the call of ours that makes it again."""
