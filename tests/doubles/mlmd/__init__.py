"""The real ML Metadata engine (MLMD) behind gRPC, for tests; and a writer that records in it what KFP's driver and launcher record.

::

    with Mlmd() as mlmd:                                      # skips the test where the engine cannot be had
        mlmd.address                                          # host:port of the gRPC service, as a Provider has it
        mlmd.record(WrittenRun(run_id, pipeline="train", executions=(root(), WrittenExecution("act", outputs=(model,)))))

The engine comes from the wheel `ml-metadata`, whose C++ extension takes and gives the bytes of each RPC; it lives in an environment
of its own in the user's cache folder, because it wants older libraries than ours. `server.py` runs there.

Read in this order: ``environment`` (where the engine comes from), ``engine`` (`Mlmd`), ``recording`` (`WrittenRun` and its parts).
"""
