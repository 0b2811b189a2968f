# Reads a release's documents with the code of those who made the formats; any complaint ends it.
import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

release = sys.argv[1]
complaints = validate_full_spdx_document(parse_file(f"{release}/tether.spdx.json"))
assert not complaints, complaints

with open(f"{release}/tether.provenance.json") as file:
    statement = json.load(file)
# A field that the schema does not know is an error here.
Statement.copy_from_pb(json_format.ParseDict(statement, statement_pb2.Statement())).validate()
predicate = json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
assert predicate.build_definition.build_type and predicate.run_details.builder.id
