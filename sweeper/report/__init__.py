def write_report(run):
    (run.path/'report').mkdir(exist_ok=True)
