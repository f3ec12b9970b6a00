"""`python -m goalrank_platform`: the `goalrank` command where no script was installed, as in the images."""

from goalrank_platform import main

if __name__ == "__main__":
    main()
