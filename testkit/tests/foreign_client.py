"""A client that has never seen the protos: everything it knows comes from server reflection.

Usage: foreign_client.py HOST:PORT, the probe's token in UPTIME_TOKEN. Submits one report, then
asks for the node until a closed round shows it, and prints what it read back.
"""

import os
import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PACKAGE = "golem.uptime.v1"


def main() -> None:
    channel = grpc.insecure_channel(sys.argv[1])
    database = ProtoReflectionDescriptorDatabase(channel)
    assert f"{PACKAGE}.Collector" in database.get_services()
    pool = descriptor_pool.DescriptorPool(database)

    def message(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    def call(service, method, request, metadata=None):
        described = pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(method)
        answer = message_factory.GetMessageClass(described.output_type)
        stub = channel.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return stub(request, metadata=metadata, timeout=10)

    token = [("authorization", f"Bearer {os.environ['UPTIME_TOKEN']}")]
    # An empty request tells a simple probe the server's time and the rules.
    rules = call("Collector", "Submit", message("SubmitRequest")(), token)
    period = rules.epoch.round_period_s
    now_ms = rules.server_time_unix_ms
    round_s = now_ms // 1000 - now_ms // 1000 % period
    node = bytes(range(20))

    def part(kind, subnet, evidence):
        found = message("Part")(
            subnet=subnet,
            round_unix_s=round_s,
            round_period_s=period,
            kind=kind,
            outcome="OUTCOME_LOOKED",
            observed_at_unix_ms=now_ms,
            relay_session_age_s=600,
        )
        found.plain.groups.add(evidence_class=evidence, node_ids=node)
        return found

    report = message("Report")(report_id=7)
    report.parts.append(part("PART_KIND_MARKET", "public", "EVIDENCE_CLASS_OFFER"))
    report.parts.append(part("PART_KIND_LOOKUP", "", "EVIDENCE_CLASS_SEEN"))
    report.details.add(node_id=node, name="a node that Python reported")
    result = call("Collector", "Submit", message("SubmitRequest")(reports=[report]), token)
    status = result.results[0]
    assert status.report_id == 7 and status.status == 1, status

    request = message("GetNodeRequest")(id="0x" + node.hex())
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = call("UptimeQuery", "GetNode", request)
            break
        except grpc.RpcError as error:
            # Its round has not closed yet.
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            assert time.monotonic() < deadline, "the node never appeared"
            time.sleep(0.1)
    shown = answer.node
    print(shown.id, shown.is_online, shown.all.up_rounds, shown.name, list(shown.subnets))
    print(answer.freshness.method, answer.freshness.round_period_s)


main()
