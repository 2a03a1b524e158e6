"""A balanced random network after Brunel (2000), and what each external synapse does to its mean rate: an exact gradient.

python examples/balanced_network.py
python examples/balanced_network.py --neurons 2000 --in-degree 200 --ms 200
"""

import argparse
import time

import torch

import adjsnn

EXTERNAL = 1000  # Poisson inputs, of which each neuron hears a tenth


def network(neurons: int, in_degree: int, generator: torch.Generator) -> adjsnn.LIFNetwork:
    """Four excitatory neurons for each inhibitory one, whose synapses are five times as strong; all delays 1.5 ms."""

    def random(sources: int, each: int) -> adjsnn.Synapses:
        pre = torch.randint(sources, (neurons * each,), generator=generator)
        return adjsnn.Synapses(pre, torch.arange(neurons).repeat_interleave(each))

    lif = adjsnn.LIFNetwork(
        EXTERNAL,
        neurons,
        tau_mem=20.0,
        tau_syn=2.0,
        refractory=2.0,
        rec_delays=1.5,
        synapses=random(EXTERNAL, EXTERNAL // 10),
        rec_synapses=random(neurons, in_degree),
        n_out=1,
        generator=generator,
    )
    weight = 4.0 / in_degree**0.5
    inhibitory = lif.structure[0].rec_synapses.pre >= round(0.8 * neurons)
    with torch.no_grad():
        lif.w_in[0].fill_(0.4)
        lif.w_rec[0].copy_(torch.where(inhibitory, -5.0 * weight, weight))
        lif.w_out.fill_(1.0 / neurons)  # the readout is the mean rate, filtered
        lif.w_out.requires_grad_(False)
        lif.w_rec[0].requires_grad_(False)
    return lif


def main(neurons: int = 10_000, in_degree: int = 1000, ms: float = 500.0, hz: float = 15.0) -> dict[str, float]:
    """Solve, and differentiate the mean rate of the second half, in spikes per second; returns the figures that it prints."""
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    lif = network(neurons, in_degree, generator)
    count = int(torch.poisson(torch.tensor(EXTERNAL * hz * ms / 1000.0), generator=generator))
    times = (ms * torch.rand(1, count, generator=generator)).sort().values
    x = adjsnn.SpikeTrains(torch.randint(EXTERNAL, (1, count), generator=generator), times, EXTERNAL, ms)
    built = time.perf_counter()
    sol = adjsnn.solve(lif, x, t_end=ms)
    window = torch.tensor([ms / 2.0]), torch.tensor([ms])
    rate = 1000.0 * sol.readout_integral(*window).sum() / (ms / 2.0)
    solved = time.perf_counter()
    rate.backward()
    done = time.perf_counter()
    gradient = lif.w_in[0].grad
    figures = {
        "rate": float(rate.detach()),
        "spikes": sol.stats.spikes[0],
        "build_s": built - start,
        "solve_s": solved - built,
        "gradient_s": done - solved,
        "mean": float(gradient.mean()),
        "spread": float(gradient.std()),
    }
    print(
        f"{neurons} neurons, {neurons * in_degree} recurrent synapses, {ms:g} ms: {figures['spikes']} spikes, "
        f"{figures['rate']:.2f} spikes/s in the second half"
    )
    print(
        f"built in {figures['build_s']:.1f} s, solved in {figures['solve_s']:.1f} s, gradient in {figures['gradient_s']:.1f} s"
    )
    print(
        f"d rate / d weight of each of {len(gradient)} external synapses: mean {figures['mean']:.2e}, "
        f"sd {figures['spread']:.2e} spikes/s"
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=10_000)
    parser.add_argument("--in-degree", type=int, default=1000)
    parser.add_argument("--ms", type=float, default=500.0)
    parser.add_argument("--hz", type=float, default=15.0, help="rate of each external input")
    main(**vars(parser.parse_args()))
