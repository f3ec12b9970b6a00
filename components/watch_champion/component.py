"""The kfp signature of watch_champion."""

from kfp import dsl

from components.images import SERVING_IMAGE


@dsl.component(base_image=SERVING_IMAGE, install_kfp_package=False)
def watch_champion(
    served_uri: str,
    tracking_uri: str,
    journal_uri: str,
    holdback: float,
    watch_days: float,
    run_uri: str,
):
    """Roll the champion back if live feedback shows that it loses against its predecessor."""
    from components.watch_champion.main import run

    run(
        served_uri=served_uri,
        tracking_uri=tracking_uri,
        journal_uri=journal_uri,
        holdback=holdback,
        watch_days=watch_days,
        run_uri=run_uri,
    )
