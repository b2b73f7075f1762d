"""What `vae` does with files and folders of images; each command in a module of its own, `pipeline.cli` lists them."""
