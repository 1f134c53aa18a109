"""`python -m dimenet_tf.plots` is the command `dimenet-tf plot`."""

if __name__ == "__main__":
    import sys

    from dimenet_tf.commands import main

    main(["plot", *sys.argv[1:]])
