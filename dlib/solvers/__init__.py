"""Solvers. A new one is one file with one decorated function, and one line in
`SOLVERS`.
"""

from dlib.solvers.base import Solver, solver
from dlib.solvers.consistency_sampling import lcm, stochastic_iterative, tcd, tcd_default, travel
from dlib.solvers.driver import State, sample, walk
from dlib.solvers.first_order import (
    Transition,
    ancestral,
    ddim,
    ddim_eta,
    euler,
    euler_maruyama,
    reverse_sde,
    transition,
)
from dlib.solvers.langevin_dynamics import annealed_langevin, langevin
from dlib.solvers.multistep import dpm_solver_pp_2m, dpm_solver_pp_3m, dpm_solver_pp_3m_released
from dlib.solvers.exponential import expand_eps, expand_x0, phi
from dlib.solvers.polynomial import (
    sde_dpm_solver_pp,
    sde_dpm_solver_pp_2m,
    sde_dpm_solver_pp_3m,
    unipc,
    unipc_1,
    unipc_2,
    unipc_3,
)
from dlib.solvers.reference_solution import reference
from dlib.solvers.singlestep import dpm_solver_2, dpm_solver_3, dpm_solver_pp_2s, heun, heun_churn
from dlib.solvers.transitions import Kernel, flow_transition, preserving_transition

dpm_solver_1 = ddim
"""DPM-Solver-1 is DDIM (Lu et al. 2022a, section 4.1)."""

SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "euler_maruyama": reverse_sde,
    "ddim": ddim,
    "ancestral": ancestral,
    "heun": heun,
    "dpm_solver_1": dpm_solver_1,
    "dpm_solver_2": dpm_solver_2,
    "dpm_solver_3": dpm_solver_3,
    "dpm_solver_pp_2s": dpm_solver_pp_2s,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "dpm_solver_pp_3m": dpm_solver_pp_3m,
    "dpm_solver_pp_3m_released": dpm_solver_pp_3m_released,
    "unipc_1": unipc_1,
    "unipc_2": unipc_2,
    "unipc_3": unipc_3,
    "sde_dpm_solver_pp_2m": sde_dpm_solver_pp_2m,
    "sde_dpm_solver_pp_3m": sde_dpm_solver_pp_3m,
    "stochastic_iterative": stochastic_iterative,
    "lcm": lcm,
    "tcd": tcd_default,
}
"""Every solver by name: what the tests of order loop over, and what `full_scale.sample
--solver` takes.
"""
