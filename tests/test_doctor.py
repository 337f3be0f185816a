from tests.conftest import Database
from auditdb import doctor
def test_x(db: Database):
    db.key
    for f in doctor.diagnose(db.connect("app_owner")): print(f)
    assert 0
