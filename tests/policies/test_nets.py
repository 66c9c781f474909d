"""Network parts that several policies share."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from policies.nets import rows_by_product


def test_rows_by_product_are_the_rows_of_a_table_with_the_same_gradient():
    weight = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    index, coefficient = torch.randint(7, (50, 2)), torch.randn(50, 2, 3, dtype=torch.float64)
    product, table = rows_by_product(weight, index), F.embedding(index, weight)
    assert torch.equal(product, table)
    found, right = (torch.autograd.grad((x * coefficient).sum(), weight)[0] for x in (product, table))
    torch.testing.assert_close(found, right)
