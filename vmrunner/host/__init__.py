"""This computer: accelerator proof, tools, paths, child processes, doctor."""
