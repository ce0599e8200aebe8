"""FedAvg; the config of each round has a fault."""

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Faulty(FedAvg):
    def __init__(self, faults, **more):
        super().__init__(fraction_evaluate=0.0, train_metrics_aggr_fn=self.seen, **more)
        self.faults = faults

    def configure_train(self, server_round, arrays, config, grid):
        config["fault"] = self.faults[server_round - 1]
        return super().configure_train(server_round, arrays, config, grid)

    def seen(self, contents, key):
        told = [content["metrics"] for content in contents]
        return MetricRecord({name: [one.get(name, -1) for one in told] for name in (key, "calls")})


@app.main()
def main(grid: Grid, context: Context) -> None:
    faults = context.run_config["rounds"].split()
    if "server" in faults:
        raise RuntimeError("the server is at fault")
    strategy = Faulty(faults, fraction_train=context.run_config["fraction-train"])
    values = []
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({"w": np.zeros(5)}),
        num_rounds=len(faults),
        evaluate_fn=lambda _, arrays: values.append(arrays["w"].numpy().tolist()),
    )
    metrics = [dict(one) for one in result.train_metrics_clientapp.values()]
    Path(context.run_config["save-in"], "result.json").write_text(json.dumps({"w": values, "metrics": metrics}))
