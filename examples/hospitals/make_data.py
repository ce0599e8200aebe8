"""Write the data of three hospitals: 442 patients with diabetes, from the dataset that comes with scikit-learn."""

from pathlib import Path

from sklearn.datasets import load_diabetes

ROWS = {"north": 300, "south": 120, "coast": 22}
NAMES = {"s1": "tc", "s2": "ldl", "s3": "hdl", "s4": "tch", "s5": "ltg", "s6": "glucose", "target": "progression"}

patients = load_diabetes(as_frame=True, scaled=False).frame.rename(columns=NAMES).sample(frac=1, random_state=0)
Path("data").mkdir(exist_ok=True)
start = 0
for hospital, rows in ROWS.items():
    patients.iloc[start : start + rows].to_csv(f"data/{hospital}.csv", index=False)
    print(f"data/{hospital}.csv: {rows} patients")
    start += rows
