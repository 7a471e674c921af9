"""WebShop (arXiv:2207.01206) in pure Python: pages, search, goals and rewards."""

from understudy.envs.webshop.needs import needs
from understudy.envs.webshop.product import CatalogueError, Goal, Product
from understudy.envs.webshop.suite import WebShop

__all__ = ["CatalogueError", "Goal", "Product", "WebShop", "needs"]
