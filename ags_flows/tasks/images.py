"""Tasks for images that AGS caches ahead of their first use, so that instances start sooner."""

from __future__ import annotations

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.lifecycle.precaching import forget_precached, precache, precached, wait_precached
from ags_flows.models import PrecachedImage, registry_type_of
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task


@sandbox_task("precache", "image")
def precache_image(
    image: str,
    registry_type: str | None = None,
    wait: bool = True,
    timeout: float | None = None,
    config: AGSConfig | str | None = None,
) -> PrecachedImage:
    """Have AGS cache an image. Asking again for the same image finds what there is.

    Args:
        image: A reference with a tag or a digest.
        registry_type: `enterprise`, `personal`, `custom` or `system`. Default: the configuration's, or derived from the
            host of the image.
        wait: Whether to wait until it is cached.
        timeout: Seconds to wait, by default the configuration's `startup_timeout`.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        ToolFailedError: AGS could not pull it; the message has the usual causes.
        WaitTimeoutError: It was not cached in time; AGS goes on.

    Example:
        ```python
        precache_image("registry.example.com/team/etl:v3", registry_type="custom")
        ```
    """
    config = resolve_config(config)
    control = config.control_plane()
    known = precache(control, image, registry_type or registry_type_of(image) or config.image_registry_type)
    if wait:
        known = wait_precached(control, known, timeout=config.startup_timeout if timeout is None else timeout)
    run_logger().info("Image %s is cached: %s", known.image, known.status)
    return known


@sandbox_task("list precached images", "image")
def list_precached_images(image: str | None = None, config: AGSConfig | str | None = None) -> list[PrecachedImage]:
    """Return all images that AGS caches, or those of one reference.

    Example:
        ```python
        print([(image.image, image.status) for image in list_precached_images()])
        ```
    """
    return precached(resolve_config(config).control_plane(), image)


@sandbox_task("delete precached image", "image")
def delete_precached_image(image: PrecachedImage | str, config: AGSConfig | str | None = None) -> None:
    """Remove a cached image, by its id or by what `precache_image` returned. One that is gone is a success.

    Example:
        ```python
        delete_precached_image(precache_image("registry.example.com/team/etl:v3", registry_type="custom"))
        ```
    """
    reference = image.id if isinstance(image, PrecachedImage) else image
    forget_precached(resolve_config(config).control_plane(), reference)
