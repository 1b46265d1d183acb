#!/usr/bin/env python3
"""A client that is not ours: Python's grpcio, knowing nothing but what server reflection tells it.

It puts stock on the shelf, places an order, reads it, repeats it under its key, and gets a well-formed error for a bad one.
Usage: foreign_client.py [GATEWAY [INVENTORY]], as host:port. Needs grpcio, grpcio-reflection and googleapis-common-protos.
"""

import sys
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT_S = 30


class Service:
    """Calls one service by names alone; the messages are what reflection describes."""

    def __init__(self, address, name):
        self.channel = grpc.insecure_channel(address)
        reflection = ProtoReflectionDescriptorDatabase(self.channel)
        assert name in reflection.get_services(), f"{address} does not list {name}: {reflection.get_services()}"
        self.service = DescriptorPool(reflection).FindServiceByName(name)

    def call(self, method, **fields):
        method = self.service.methods_by_name[method]
        request = GetMessageClass(method.input_type)(**fields)
        call = self.channel.unary_unary(
            f"/{self.service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return call(request, timeout=TIMEOUT_S)

    def enum_name(self, message, field):
        enum = message.DESCRIPTOR.fields_by_name[field].enum_type
        return enum.values_by_number[getattr(message, field)].name


def details_of(error):
    """The google.rpc details of an error, decoded, by type name."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0], "the details tell another code than the status"
    known = {
        kind.DESCRIPTOR.full_name: kind
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.ResourceInfo)
    }
    decoded = {}
    for detail in status.details:
        name = detail.type_url.rpartition("/")[2]
        decoded[name] = known[name].FromString(detail.value) if name in known else None
    return decoded


def expect_error(service, method, **fields):
    try:
        answer = service.call(method, **fields)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{method} accepted {fields}: {answer}")


def main(gateway="127.0.0.1:50051", inventory="127.0.0.1:50061"):
    run = uuid.uuid4().hex[:12]
    sku, key = f"foreign-{run}", f"foreign-{run}"

    stock = Service(inventory, "inventory.v1.InventoryService")
    stock.call("AddStock", receipt_id=f"receipt-{run}", sku=sku, quantity=5)

    orders = Service(gateway, "order.v1.OrderService")
    wanted = {"order_key": key, "user_id": "guido", "lines": [{"sku": sku, "quantity": 2}]}
    placed = orders.call("CreateOrder", **wanted).order
    assert orders.enum_name(placed, "status") == "ORDER_STATUS_CONFIRMED", placed
    print(f"placed   {placed.order_id} {orders.enum_name(placed, 'status')}")

    read = orders.call("GetOrder", order_id=placed.order_id).order
    assert (read.order_id, read.user_id, read.order_key) == (placed.order_id, "guido", key), read
    assert [(line.sku, line.quantity) for line in read.lines] == [(sku, 2)], read
    print(f"read     {read.order_id} {orders.enum_name(read, 'status')}")

    again = orders.call("CreateOrder", **wanted).order
    assert again.order_id == placed.order_id, "the same key gave another order"
    print(f"repeated {again.order_id}")

    refused = orders.call("CreateOrder", **{**wanted, "order_key": f"{key}-b", "lines": [{"sku": sku, "quantity": 50}]}).order
    assert orders.enum_name(refused, "status") == "ORDER_STATUS_CANCELLED", refused
    assert refused.refusal.code == "OUT_OF_STOCK", refused
    print(f"refused  {refused.order_id} {refused.refusal.code}: {refused.refusal.message}")

    bad = expect_error(orders, "CreateOrder", order_key="with space", user_id="guido", lines=[{"sku": sku, "quantity": 0}])
    assert bad.code() == grpc.StatusCode.INVALID_ARGUMENT, bad
    details = details_of(bad)
    fields = {violation.field: violation.description for violation in details["google.rpc.BadRequest"].field_violations}
    assert set(fields) == {"order_key", "lines[0].quantity"}, fields
    assert details["google.rpc.ErrorInfo"].domain == "order.v1", details
    for field, description in fields.items():
        print(f"bad      {field}: {description}")

    missing = expect_error(orders, "CreateOrder", order_key=f"{key}-c", user_id="guido", lines=[{"sku": f"{sku}-x", "quantity": 1}])
    assert missing.code() == grpc.StatusCode.NOT_FOUND, missing
    resource = details_of(missing)["google.rpc.ResourceInfo"]
    assert resource.resource_name == f"{sku}-x", resource
    print(f"missing  {resource.resource_type} {resource.resource_name}")
    print("foreign client: all as promised")


if __name__ == "__main__":
    main(*sys.argv[1:])
