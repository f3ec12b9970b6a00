-- Run once, by the image's entry point, when the volume is empty: a role and a database each for MLflow and Feast.
\getenv mlflow_password MLFLOW_PASSWORD
\getenv feast_password FEAST_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE feast LOGIN PASSWORD :'feast_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE feast OWNER feast;
REVOKE ALL ON DATABASE mlflow, feast FROM PUBLIC;
