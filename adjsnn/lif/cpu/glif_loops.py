from adjsnn.lif.glif.plain import forward
from adjsnn.lif.glif.plain_adjoint import backward
